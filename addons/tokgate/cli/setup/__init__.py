"""Commands for the first day: a first policy, the authority of the block page, completion in a shell."""
