"""The subcommands of `mesh debug`, by what they look at."""
