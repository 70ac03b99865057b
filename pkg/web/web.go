// Package web is the HTTP edge of a service: its routes and who may call them,
// strict decoding of request bodies, the response envelope, request ids and the
// access log. It knows no service and no business rule.
package web
