"""What the subcommands that send image files share."""
