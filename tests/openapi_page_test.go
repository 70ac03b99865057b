package tests

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"github.com/headgate/headgate/pkg/testkit"
)

// watch records blocked requests and errors on a page.
const watch = `
	window.faults = [];
	addEventListener("securitypolicyviolation", e => faults.push(e.violatedDirective + " forbids " + e.blockedURI));
	addEventListener("error", e => faults.push("error: " + (e.message || e.target.src || e.target.href)), true);
	addEventListener("unhandledrejection", e => faults.push("rejected: " + e.reason));
	console.error = (...words) => faults.push("console: " + words.join(" "));
`

// TestOpenAPIPage tries a route on /docs. Nothing on the page violates its content security
// policy, and it sends no request to another server.
func TestOpenAPIPage(t *testing.T) {
	t.Parallel()
	gateway, b := facts(t).GatewayURL, startBrowser(t)
	do(b, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: watch})
	drive(b, chromedp.Navigate(gateway+"/docs"))
	want := len(operations(t))
	testkit.Eventually(t, func() error {
		if n := drive(b, chromedp.Evaluate[int](`document.querySelectorAll(".opblock").length`)); n != want {
			return fmt.Errorf("the page has %d operations, want %d", n, want)
		}
		return nil
	})
	const health = `document.querySelector("#operations-Installation-getHealth")`
	for _, selector := range []string{".opblock-summary-control", ".try-out__btn", ".execute"} {
		testkit.Eventually(t, func() error {
			if !drive(b, chromedp.Evaluate[bool](`(b => { b?.click(); return !!b })(`+health+`.querySelector("`+selector+`"))`)) {
				return fmt.Errorf("there is no %s", selector)
			}
			return nil
		})
	}
	testkit.Eventually(t, func() error {
		status := drive(b, chromedp.Evaluate[string](health+`.querySelector(".live-responses-table tbody .response-col_status")?.textContent ?? ""`))
		if !strings.HasPrefix(status, "200") {
			return fmt.Errorf("the response is %q", status)
		}
		return nil
	})
	if faults := drive(b, chromedp.Evaluate[[]string]("faults")); len(faults) > 0 {
		t.Errorf("errors on the page: %q", faults)
	}
	requested := drive(b, chromedp.Evaluate[[]string](`performance.getEntriesByType("resource").map(e => e.name)`))
	if !slices.Contains(requested, gateway+"/openapi.json") || slices.ContainsFunc(requested, func(url string) bool {
		return !strings.HasPrefix(url, gateway+"/") && !strings.HasPrefix(url, "data:")
	}) {
		t.Errorf("the page requested %q", requested)
	}
}
