"""What every call passes on its way to a service, whatever the transport."""
