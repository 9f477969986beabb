"""What is measured and noted of calls: metrics, logs, call records, traces."""
