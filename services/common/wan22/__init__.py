"""wan22: what every service, the command and a client share."""
