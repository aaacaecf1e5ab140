"""Programs that write generated files of the repository; no part of the installed package."""
