"""What is changed on a running server outside of Pulumi: databases, roles, passwords."""
