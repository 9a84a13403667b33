"""Who calls: API keys and tokens become a tenant with roles, or the call is refused."""
