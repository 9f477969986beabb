"""Processing common to all calls and transports: authentication, limits, metrics and error mapping."""
