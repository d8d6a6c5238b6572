"""Reports of users, replayed: an input that failed somewhere, and the result that was expected.

row         a case, the result of replaying it, and whether the two agree
texts       verifiers and tool protocols
programs    the executor and unit tests
files       problems and demonstrations in files
folders     checkpoints, their configs, chat dialogues
runs        training that is resumed
decisions   cases where this project wants another result, with the reason
"""
