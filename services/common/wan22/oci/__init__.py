"""Versions in other registries, by the OCI distribution specification 1.1; needs the extra `oci`."""
