package postgres

// IncarnationSQL is an SQL expression of type text. It has the same value in all
// sessions while the database cannot have been replaced by an older copy: while the
// server keeps running and the database is not created again. A restart, a failover, or
// a restore changes it. So a process that remembers numbers or versions from a database
// reads it again with them, and trusts what it remembers only if the value is the same.
// An equal value proves that the database is the same; another one proves nothing.
const IncarnationSQL = `(SELECT extract(epoch FROM pg_postmaster_start_time())::text || '/' || oid::text FROM pg_database WHERE datname = current_database())`
