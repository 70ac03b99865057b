module github.com/headgate/headgate/tests

go 1.26.0

require github.com/headgate/headgate/pkg v0.0.0

replace github.com/headgate/headgate/pkg => ../pkg
