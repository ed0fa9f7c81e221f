"""What ``shoal doctor`` looks at: each module one part of the world, each finding with its cure."""
