package capture

import (
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// cleanAuthority returns the scheme, host and port of an authority found behind a lower-case scheme.
// http on its default port becomes https: every board redirects. Another port serves one scheme only.
func cleanAuthority(scheme, authority string) (newScheme, host, port string, err error) {
	if strings.Contains(authority, "@") {
		return "", "", "", ErrSourceUserInfo
	}
	host, port, _ = strings.Cut(authority, ":")
	host, ok := cleanHost(host)
	if !ok {
		return "", "", "", ErrSourceHost
	}
	port, ok = cleanPort(port)
	switch {
	case !ok:
		return "", "", "", ErrSourcePort
	case scheme == "http" && (port == "" || port == "80"), scheme == "https" && port == "443":
		return "https", host, "", nil
	}
	return scheme, host, port, nil
}

// cleanHost returns a host name in lower case and without its trailing dot. It is not ok when the host is
// empty or holds anything but letters, digits, hyphens, underscores and single dots: percent-escapes and
// IPv6 literals are refused, no posting has been seen under one. Letters outside ASCII are kept as
// they are, since lower-casing them by Unicode's rules could merge names that IDNA keeps apart.
func cleanHost(host string) (string, bool) {
	host = strings.TrimSuffix(host, ".")
	if host == "" || host[0] == '.' || host[len(host)-1] == '.' || strings.Contains(host, "..") {
		return "", false
	}
	for _, r := range host {
		if !isHostRune(r) {
			return "", false
		}
	}
	return lowerASCII(host), true
}

func isHostRune(r rune) bool {
	if r < 0x80 {
		return isAlphanumeric(byte(r)) || r == '.' || r == '-' || r == '_'
	}
	return unicode.In(r, unicode.Letter, unicode.Mark, unicode.Number)
}

// cleanPort returns a port without leading zeros. The empty port is the default one, and ok.
func cleanPort(port string) (string, bool) {
	if port == "" {
		return "", true
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return strconv.FormatUint(n, 10), err == nil && n > 0
}

// cleanPath returns a path with its escapes normalised, its dot segments resolved and one trailing slash
// dropped. A path that ends in several slashes keeps them all: dropping one at a time would never end,
// and nothing says that the page is the same.
func cleanPath(path string) string {
	path = cleanEscapes(path)
	if strings.Contains(path, "/.") {
		path = resolveDots(path)
	}
	if path == "" {
		return "/"
	}
	if n := len(path); n > 1 && path[n-1] == '/' && path[n-2] != '/' {
		return path[:n-1]
	}
	return path
}

// resolveDots resolves the segments "." and ".." of an absolute path (RFC 3986, section 5.2.4).
func resolveDots(path string) string {
	segments := strings.Split(path[1:], "/")
	kept := segments[:0]
	for i, segment := range segments {
		switch segment {
		case ".":
		case "..":
			kept = kept[:max(0, len(kept)-1)]
		default:
			kept = append(kept, segment)
			continue
		}
		if i == len(segments)-1 {
			kept = append(kept, "") // the directory itself
		}
	}
	return "/" + strings.Join(kept, "/")
}

// cleanQuery returns the parameters of a query without the tracking ones, their escapes normalised,
// sorted by name and then value. "a" and "a=" differ, as do "+" and "%20": some servers tell them apart.
func cleanQuery(query string) []string {
	if query == "" {
		return nil
	}
	params := make([]string, 0, 1+strings.Count(query, "&"))
	for param := range strings.SplitSeq(query, "&") {
		param = cleanEscapes(param)
		if param != "" && !isTracking(paramName(param)) {
			params = append(params, param)
		}
	}
	slices.SortFunc(params, func(a, b string) int {
		if byName := strings.Compare(paramName(a), paramName(b)); byName != 0 {
			return byName
		}
		return strings.Compare(a, b)
	})
	return params
}

func paramName(param string) string {
	name, _, _ := strings.Cut(param, "=")
	return name
}

// cleanFragment returns the fragment if it says which page or posting is meant, and "" if it is a place
// in the page. Of the first kind are routes of single-page applications ("#/jobs/7", "#!/jobs/7"), state
// ("#job=7", cleaned like a query) and whatever holds a number of four digits or more
// ("#op-518245-engineer"). Text directives (":~:text=") never belong to the address.
func cleanFragment(fragment string) string {
	if fragment == "" {
		return ""
	}
	fragment, _, _ = strings.Cut(cleanEscapes(fragment), ":~:")
	route, isBang := strings.CutPrefix(fragment, "!")
	if route == "" || route == "/" {
		return ""
	}
	if isBang || route[0] == '/' {
		return fragment
	}
	if strings.Contains(fragment, "=") {
		fragment = strings.Join(cleanQuery(fragment), "&")
	}
	if strings.Contains(fragment, "=") || hasNumber(fragment, 4) {
		return fragment
	}
	return ""
}

// hasNumber reports whether s holds a run of at least this many digits.
func hasNumber(s string, digits int) bool {
	run := 0
	for i := range len(s) {
		if run++; s[i] < '0' || s[i] > '9' {
			run = 0
		}
		if run == digits {
			return true
		}
	}
	return false
}

// isTracking reports whether a parameter of this name tells how a visitor came, and never what is shown.
// Names that mean this on some sites and identify a posting on others (ref, source, src, from, trk, cid)
// are not among them.
func isTracking(name string) bool {
	name = lowerASCII(name)
	if strings.HasPrefix(name, "utm_") { // Google Analytics and all who imitate it
		return true
	}
	switch name {
	case "gclid", "gclsrc", "dclid", "gbraid", "wbraid", "gad_source", "gad_campaignid", "srsltid", // Google Ads
		"_ga", "_gl", "_gac", // Google Analytics, across domains
		"fbclid", "igshid", "igsh", "twclid", "ttclid", "li_fat_id", "rdt_cid", "epik", "sccid", // social networks
		"msclkid", "yclid", "ysclid", "tblci", "dicbo", "s_kwcid", // Bing, Yandex, Taboola, Outbrain, Adobe
		"mc_cid", "mc_eid", "mkt_tok", "_kx", "vero_id", "oly_anon_id", "oly_enc_id", // e-mail campaigns
		"_hsenc", "_hsmi", "__hstc", "__hssc", "__hsfp", "hsctatracking", // HubSpot
		"mtm_campaign", "mtm_cid", "mtm_content", "mtm_group", "mtm_keyword", "mtm_medium", "mtm_placement", "mtm_source",
		"pk_campaign", "pk_cid", "pk_content", "pk_keyword", "pk_kwd", "pk_medium", "pk_source", // Matomo and Piwik
		"gh_src",                                                                            // Greenhouse, also on the employer's own site
		"lever-origin", "lever-source", "lever-source[]", "lever-source%5b%5d", "lever-via": // Lever, likewise
		return true
	}
	return false
}

// cleanEscapes returns s with the percent-encoding of RFC 3986, section 6.2.2: escapes of unreserved
// characters are decoded, the others are upper-case, characters that need an escape have one. A "%" that
// begins no escape stands for itself and becomes "%25", so that what follows cannot join it to form one.
// Reserved characters stay as they are, raw or escaped: to a server they may differ.
func cleanEscapes(s string) string {
	first := 0
	for first < len(s) && isLegal(s[first]) {
		first++
	}
	if first == len(s) {
		return s
	}
	b := make([]byte, first, len(s)+16)
	copy(b, s)
	for i := first; i < len(s); i++ {
		c := s[i]
		if isLegal(c) {
			b = append(b, c)
			continue
		}
		if c == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]) {
			c = unhex(s[i+1])<<4 | unhex(s[i+2])
			i += 2
			if isUnreserved(c) {
				b = append(b, c)
				continue
			}
		}
		const digits = "0123456789ABCDEF"
		b = append(b, '%', digits[c>>4], digits[c&15])
	}
	return string(b)
}

// isLegal reports whether c may stand unescaped in a path, query or fragment. "[" and "]" may not by RFC
// 3986, yet browsers leave them, and as reserved characters they must not be taken for their escapes.
func isLegal(c byte) bool {
	return isUnreserved(c) || strings.IndexByte("/?:@!$&'()*+,;=[]", c) >= 0
}

func isUnreserved(c byte) bool {
	return isAlphanumeric(c) || c == '-' || c == '.' || c == '_' || c == '~'
}

func isAlphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f'
}

// unhex returns the value of a hexadecimal digit.
func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}

// lowerASCII returns s with the letters A to Z in lower case, and every other character as it is.
func lowerASCII(s string) string {
	isUpper := func(r rune) bool { return 'A' <= r && r <= 'Z' }
	if !strings.ContainsFunc(s, isUpper) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if isUpper(r) {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}
