"""Methods that a member may call on its connection: name -> function."""
