"""``shoal dashboard``: a live page of a fleet. A caller, as the command line is one."""
