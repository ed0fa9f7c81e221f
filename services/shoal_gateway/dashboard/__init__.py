"""``shoal dashboard``: a live page of a fleet. A caller like the command line, in a process apart."""
