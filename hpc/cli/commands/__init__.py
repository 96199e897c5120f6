"""The subcommands of ``ipcluster``, one a module: imported when they are called, so that each starts fast."""
