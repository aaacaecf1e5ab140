"""The programs of services: their command lines and executables."""
