"""Machine code that nobody would write, for vCPUs that execute it: drawn, played, judged."""
