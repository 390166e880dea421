"""Do one task of a verification: knows no queue, no HTTP, no settings and no run records."""
