"""Administration of running servers outside of Pulumi: databases, roles, passwords."""
