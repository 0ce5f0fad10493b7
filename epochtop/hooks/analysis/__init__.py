"""Where the next steps of a live script spend their time; measured on demand, costs nothing at any other time."""
