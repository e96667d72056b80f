"""Reading: tables, verdicts, scoreboard and status, made from the papers and the records."""
