"""What the running service knows of its own latency: windows of samples, a book per flow, the rhythm of each adapter. Pure."""
