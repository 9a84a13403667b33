"""The gateway's rows: tables, the database that serialises writes, and one module a noun."""
