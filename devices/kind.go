package devices

import "strings"

// hint is one rule of thumb. Hostname patterns are lower case; a trailing *
// matches any end, a leading * anything before.
type hint struct {
	pattern string
	kind    Kind
	words   string
}

// hostnameHints are names that devices give themselves out of the box, as seen
// in makers' own manuals and set-up pages. The first that fits wins, so the
// narrow ones come first.
var hostnameHints = [...]hint{
	{"iphone*", KindPhone, "an iPhone"}, {"*-iphone*", KindPhone, "an iPhone"}, {"*s iphone*", KindPhone, "an iPhone"},
	{"ipad*", KindTablet, "an iPad"}, {"*-ipad*", KindTablet, "an iPad"}, {"*s ipad*", KindTablet, "an iPad"},
	{"galaxy-tab*", KindTablet, "a Galaxy tablet"}, {"*-tab-s*", KindTablet, "a Galaxy tablet"},
	{"galaxy-*", KindPhone, "a Galaxy telephone"}, {"galaxy s*", KindPhone, "a Galaxy telephone"}, {"*s-s2?-ultra*", KindPhone, "a Galaxy telephone"},
	{"pixel-*", KindPhone, "a Pixel telephone"}, {"pixel ?*", KindPhone, "a Pixel telephone"},
	{"oneplus*", KindPhone, "a OnePlus telephone"}, {"redmi*", KindPhone, "a Redmi telephone"}, {"xiaomi-1*", KindPhone, "a Xiaomi telephone"},
	{"android-????????????????", KindPhone, "an Android telephone"},
	{"kindle-*", KindTablet, "a Kindle"}, {"surface-*", KindComputer, "a Surface computer"},
	{"macbook*", KindComputer, "a MacBook"}, {"*-macbook*", KindComputer, "a MacBook"}, {"*s macbook*", KindComputer, "a MacBook"},
	{"imac*", KindComputer, "an iMac"}, {"mac-mini*", KindComputer, "a Mac mini"},
	{"desktop-???????", KindComputer, "a Windows computer"}, {"laptop-????????", KindComputer, "a Windows computer"},
	{"thinkpad*", KindComputer, "a ThinkPad"}, {"chromebook*", KindComputer, "a Chromebook"},

	{"roku*", KindTV, "a Roku player"}, {"lg-webos*", KindTV, "an LG television"}, {"lgwebostv*", KindTV, "an LG television"}, {"lgsmarttv*", KindTV, "an LG television"},
	{"samsung-tv*", KindTV, "a Samsung television"}, {"-tv-*", KindTV, "a Samsung television"}, {"bravia*", KindTV, "a Sony television"},
	{"chromecast*", KindTV, "a Chromecast"}, {"google-tv*", KindTV, "a Google TV"}, {"androidtv*", KindTV, "an Android television"}, {"android-tv*", KindTV, "an Android television"},
	{"appletv*", KindTV, "an Apple TV"}, {"apple-tv*", KindTV, "an Apple TV"}, {"firetv*", KindTV, "a Fire TV"}, {"fire-tv*", KindTV, "a Fire TV"},
	{"viziocast*", KindTV, "a Vizio television"}, {"hisense*tv*", KindTV, "a Hisense television"}, {"philipstv*", KindTV, "a Philips television"},
	{"*-tv", KindTV, "a television"}, {"tv-*", KindTV, "a television"}, {"tv", KindTV, "a television"}, {"*television*", KindTV, "a television"},

	{"playstation*", KindConsole, "a PlayStation"}, {"ps4-*", KindConsole, "a PlayStation"}, {"ps5-*", KindConsole, "a PlayStation"},
	{"xbox*", KindConsole, "an Xbox"}, {"nintendo*", KindConsole, "a Nintendo console"}, {"steamdeck*", KindConsole, "a Steam Deck"},

	{"ring-*", KindCamera, "a Ring camera or doorbell"}, {"ringdoorbell*", KindCamera, "a Ring doorbell"}, {"*doorbell*", KindCamera, "a doorbell camera"},
	{"wyzecam*", KindCamera, "a Wyze camera"}, {"wyze*cam*", KindCamera, "a Wyze camera"}, {"arlo*", KindCamera, "an Arlo camera"}, {"vmc????*", KindCamera, "an Arlo camera"},
	{"eufy*", KindCamera, "a Eufy camera"}, {"reolink*", KindCamera, "a Reolink camera"}, {"ezviz*", KindCamera, "an Ezviz camera"}, {"hikvision*", KindCamera, "a Hikvision camera"},
	{"amcrest*", KindCamera, "an Amcrest camera"}, {"foscam*", KindCamera, "a Foscam camera"}, {"tapo_c*", KindCamera, "a Tapo camera"}, {"nest-cam*", KindCamera, "a Nest camera"},
	{"blink-*", KindCamera, "a Blink camera"}, {"ipcam*", KindCamera, "a network camera"}, {"ipc-*", KindCamera, "a network camera"},
	{"dcs-*", KindCamera, "a D-Link camera"}, {"dsp-w*", KindPlug, "a D-Link plug"}, {"dch-g*", KindHub, "a D-Link hub"}, {"dch-s*", KindSensor, "a D-Link sensor"}, {"lightify*", KindHub, "a Lightify gateway"},
	{"*-camera*", KindCamera, "a camera"}, {"camera*", KindCamera, "a camera"}, {"*baby*monitor*", KindCamera, "a baby monitor"},

	{"sonos*", KindSpeaker, "a Sonos speaker"}, {"amazon-echo*", KindSpeaker, "an Echo"}, {"echo-*", KindSpeaker, "an Echo"}, {"google-home*", KindSpeaker, "a Google speaker"},
	{"google-nest-mini*", KindSpeaker, "a Google speaker"}, {"nest-audio*", KindSpeaker, "a Google speaker"}, {"homepod*", KindSpeaker, "a HomePod"},
	{"bose-*", KindSpeaker, "a Bose speaker"}, {"*speaker*", KindSpeaker, "a speaker"}, {"denon-*", KindSpeaker, "a Denon receiver"}, {"*soundbar*", KindSpeaker, "a sound bar"},

	{"shelly*", KindPlug, "a Shelly plug or relay"}, {"hs1??*", KindPlug, "a Kasa plug"}, {"kasa*", KindPlug, "a Kasa plug"}, {"tapo_p*", KindPlug, "a Tapo plug"}, {"p1??-*", KindPlug, "a Tapo plug"},
	{"meross*", KindPlug, "a Meross plug"}, {"tasmota*", KindPlug, "a plug or relay with Tasmota"}, {"sonoff*", KindPlug, "a Sonoff relay"}, {"wemo*", KindPlug, "a Wemo plug"},
	{"*smartplug*", KindPlug, "a smart plug"}, {"*smart-plug*", KindPlug, "a smart plug"}, {"*-plug*", KindPlug, "a plug"}, {"plug*", KindPlug, "a plug"},

	{"philips-hue*", KindHub, "a Hue bridge"}, {"hue-bridge*", KindHub, "a Hue bridge"}, {"tradfri*", KindHub, "an IKEA gateway"}, {"gw2-*", KindHub, "an IKEA gateway"}, {"dirigera*", KindHub, "an IKEA hub"},
	{"homeassistant*", KindHub, "a Home Assistant hub"}, {"lumi-gateway*", KindHub, "an Aqara hub"}, {"aqara-hub*", KindHub, "an Aqara hub"}, {"st-hub*", KindHub, "a SmartThings hub"}, {"*smart-hub*", KindHub, "a hub"},

	{"lifx*", KindLight, "a LIFX light"}, {"nanoleaf*", KindLight, "a Nanoleaf light"}, {"yeelink*", KindLight, "a Yeelight"}, {"yeelight*", KindLight, "a Yeelight"},
	{"wiz_*", KindLight, "a WiZ light"}, {"wled*", KindLight, "a WLED light"}, {"govee*", KindLight, "a Govee light"}, {"kl1??*", KindLight, "a Kasa light"}, {"tapo_l*", KindLight, "a Tapo light"},

	{"roomba*", KindAppliance, "a Roomba"}, {"irobot*", KindAppliance, "a Roomba"}, {"roborock*", KindAppliance, "a Roborock vacuum"}, {"ecovacs*", KindAppliance, "an Ecovacs vacuum"}, {"deebot*", KindAppliance, "an Ecovacs vacuum"},
	{"dyson*", KindAppliance, "a Dyson appliance"}, {"ecobee*", KindAppliance, "an ecobee thermostat"}, {"nest-thermostat*", KindAppliance, "a Nest thermostat"}, {"tado", KindAppliance, "a tado thermostat"},
	{"samsung-washer*", KindAppliance, "a washing machine"}, {"lg_smart_*", KindAppliance, "an LG appliance"}, {"*dishwasher*", KindAppliance, "a dishwasher"}, {"*-vacuum*", KindAppliance, "a vacuum cleaner"},

	{"withings*", KindSensor, "a Withings scale or sensor"}, {"netatmo*", KindSensor, "a Netatmo sensor"}, {"airthings*", KindSensor, "an Airthings sensor"}, {"*-sensor*", KindSensor, "a sensor"},
	{"hp??????", KindPrinter, "an HP printer"}, {"epson??????", KindPrinter, "an Epson printer"}, {"brn????????????", KindPrinter, "a Brother printer"}, {"brw????????????", KindPrinter, "a Brother printer"},
	{"canon??????", KindPrinter, "a Canon printer"}, {"*printer*", KindPrinter, "a printer"},
	{"toniebox*", KindToy, "a Toniebox"}, {"furby*", KindToy, "a talking toy"}, {"*-toy*", KindToy, "a toy"}, {"toy-*", KindToy, "a toy"}, {"toy", KindToy, "a toy"},

	{"esp_??????", KindOther, "a small module as plugs, lights and sensors have one"}, {"esp-??????", KindOther, "a small module as plugs, lights and sensors have one"},
	{"esp32-*", KindOther, "a small module as plugs, lights and sensors have one"}, {"tuya*", KindOther, "a Tuya module"}, {"gainspan*", KindOther, "a small module as scales and sensors have one"}, {"wlan0", KindOther, "a small module as plugs and cameras have one"},
	{"android-*", KindPhone, "an Android telephone"},
}

// makerHints are makers of (nearly) one kind of device. Makers of many kinds,
// such as Samsung or Apple, are left out: unsure is unknown.
var makerHints = [...]hint{
	{"roku", KindTV, "Roku"}, {"vizio", KindTV, "Vizio"},
	{"hangzhou hikvision*", KindCamera, "Hikvision"}, {"zhejiang dahua*", KindCamera, "Dahua"}, {"*ezviz*", KindCamera, "Ezviz"},
	{"reolink*", KindCamera, "Reolink"}, {"wyze labs", KindCamera, "Wyze"}, {"arlo technology", KindCamera, "Arlo"}, {"ring", KindCamera, "Ring"},
	{"axis communications*", KindCamera, "Axis"}, {"amcrest*", KindCamera, "Amcrest"}, {"shenzhen foscam*", KindCamera, "Foscam"}, {"vivotek*", KindCamera, "Vivotek"}, {"blink by amazon*", KindCamera, "Blink"},
	{"sonos", KindSpeaker, "Sonos"}, {"bose", KindSpeaker, "Bose"}, {"bang & olufsen*", KindSpeaker, "Bang & Olufsen"},
	{"shelly*", KindPlug, "Shelly"}, {"allterco*", KindPlug, "Shelly"}, {"*meross*", KindPlug, "Meross"}, {"belkin*wemo*", KindPlug, "Wemo"},
	{"lifi labs*", KindLight, "LIFX"}, {"lifx*", KindLight, "LIFX"}, {"nanoleaf*", KindLight, "Nanoleaf"}, {"yeelight*", KindLight, "Yeelight"}, {"wiz", KindLight, "WiZ"}, {"wiz connected*", KindLight, "WiZ"},
	{"philips lighting*", KindHub, "Philips Hue"}, {"signify*", KindHub, "Philips Hue"}, {"ikea *", KindHub, "IKEA"}, {"lumi united*", KindHub, "Aqara"},
	{"irobot*", KindAppliance, "iRobot"}, {"*roborock*", KindAppliance, "Roborock"}, {"ecovacs*", KindAppliance, "Ecovacs"}, {"dyson*", KindAppliance, "Dyson"}, {"ecobee*", KindAppliance, "ecobee"}, {"tado", KindAppliance, "tado"},
	{"netatmo*", KindSensor, "Netatmo"}, {"withings*", KindSensor, "Withings"}, {"airthings*", KindSensor, "Airthings"},
	{"nintendo*", KindConsole, "Nintendo"}, {"sony interactive*", KindConsole, "Sony Interactive Entertainment"},
	{"seiko epson*", KindPrinter, "Epson"}, {"brother industries*", KindPrinter, "Brother"}, {"lexmark*", KindPrinter, "Lexmark"},
	{"boxine*", KindToy, "Boxine"}, {"espressif*", KindOther, "Espressif, whose modules are in plugs, lights and sensors"}, {"tuya*", KindOther, "Tuya"}, {"eq-3*", KindOther, "eQ-3, who makes Homematic"},
}

// guessKind says what a device probably is and how that is known.
func guessKind(hostname, maker string) (Kind, string) {
	if hostname != "" {
		name := strings.ReplaceAll(strings.ToLower(hostname), "’", "")
		for _, h := range hostnameHints {
			if like(h.pattern, name) {
				return h.kind, "its host name looks like that of " + h.words
			}
		}
	}
	if maker != "" {
		name := strings.ToLower(maker)
		for _, h := range makerHints {
			if like(h.pattern, name) {
				return h.kind, "its maker is " + h.words
			}
		}
	}
	return KindUnknown, ""
}

// like matches s against a pattern of literal octets, ? for any one and * for
// any run. It goes back to the last star only, so it costs at most
// len(pattern) × len(s).
func like(pattern, s string) bool {
	p, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
