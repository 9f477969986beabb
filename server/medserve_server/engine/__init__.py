"""One model: its session, its queue, and the runs that join the rows of many requests."""
