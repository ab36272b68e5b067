"""Where pictures are and how their bytes get here: files of this machine, object stores, the web, lists of those."""
