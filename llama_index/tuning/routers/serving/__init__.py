"""What an app needs of a tuned router, and nothing that trains one."""
