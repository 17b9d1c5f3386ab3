"""What greentask needs of gevent besides sockets: a writer for descriptors, and one home for I/O in every program."""
