// A shared library needs one source file of its own; everything in libdeepseek comes from the static libraries.
