"""`wan22 bench gateway`: how much of a bare server's throughput the gateway keeps, and how it answers under load."""
