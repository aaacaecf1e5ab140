"""The data sets in Plinth's image, by the profiles of the load gate."""

from __future__ import annotations

from plinth.load.slo import Data, Slo

# Next to the package in the image.
DIRECTORY = "load-data"


def sets_of(slo: Slo) -> list[Data]:
    """Return the data sets of the profiles that cannot be generated where the load runs."""
    found = {file_name(profile.data): profile.data for profile in slo.profiles.values()}
    return [data for _, data in sorted(found.items()) if data.source == "wordnet"]


def file_name(data: Data) -> str:
    """Return the file name of a data set; another number of points or queries is another sample."""
    return f"{data.source}-{data.points}-{data.queries}.npz"
