"""Other people's shapes of data: files, tables, test sets, chat formats; plain data out of each."""
