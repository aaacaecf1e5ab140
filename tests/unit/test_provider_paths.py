"""The paths of Plinth's dynamic providers: Pulumi's state names them, so a stack breaks when one moves."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

from plinth import resources
from plinth.resources.base import Provider
from plinth.targets.local import resource

# Never change a line; add one for a new provider.
FROZEN = {
    "plinth.resources.certificate.CertificateProvider",
    "plinth.resources.cluster_ready.ClusterReadyProvider",
    "plinth.resources.collection.AliasesProvider",
    "plinth.resources.collection.CollectionProvider",
    "plinth.resources.database.DatabaseProvider",
    "plinth.resources.database.MonitorRoleProvider",
    "plinth.resources.database.SuperuserProvider",
    "plinth.resources.grafana.AdminProvider",
    "plinth.resources.ready.ReadyProvider",
    "plinth.resources.rollout.RolloutProvider",
    "plinth.resources.secret.GeneratedSecretProvider",
    "plinth.targets.local.resource.ProcessProvider",
}


def test_every_dynamic_provider_is_where_states_name_it() -> None:
    names = [f"{resources.__name__}.{module.name}" for module in pkgutil.iter_modules(resources.__path__)]
    modules = [resource, *map(importlib.import_module, names)]
    providers = {
        f"{member.__module__}.{member.__qualname__}"
        for module in modules
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, Provider) and member is not Provider and member.__module__ == module.__name__
    }
    assert providers == FROZEN
