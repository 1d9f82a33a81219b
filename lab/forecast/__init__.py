"""Memory, throughput, disk and time arithmetic; pure."""
