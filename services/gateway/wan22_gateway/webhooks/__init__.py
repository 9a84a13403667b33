"""Telling tenants by HTTPS that their generations have ended."""
