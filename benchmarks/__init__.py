"""What branching, starting and creating cost, beside what a user would do instead, measured in one run on one machine."""
