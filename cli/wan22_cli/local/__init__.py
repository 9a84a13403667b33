"""What `wan22 up` does: processes, ports, models and pools of one machine."""
