package testkit

// SpecialPasswords have the characters that are special in URLs, shells, .env and SQL.
var SpecialPasswords = []string{`$HOME`, `pa$$word`, `it's`, `"quoted"`, `two words `, `a@b:c/d?e#f`, `100%`, `%41`, `back\slash\n`, `ä€`}
