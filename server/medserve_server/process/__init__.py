"""The processes of a server: the command, the supervisor, its workers, from start to stop."""
