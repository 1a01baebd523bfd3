/* Parts of SQLite that the driver switches on and nothing here uses. Included before
   its source (Makefile), for what a package itself defines cannot be undone by flags. */
#undef SQLITE_ENABLE_FTS3
#undef SQLITE_ENABLE_FTS3_PARENTHESIS
#undef SQLITE_ENABLE_RTREE
#define SQLITE_OMIT_JSON
