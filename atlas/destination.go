package atlas

// Purpose is what a destination is for, seen from the device that talks to it.
type Purpose string

const (
	PurposeUnknown      Purpose = ""
	PurposeControl      Purpose = "control"      // the maker's own service, without which the device does not work
	PurposeUpdate       Purpose = "update"       // firmware and security updates
	PurposeTime         Purpose = "time"         // clocks
	PurposeContent      Purpose = "content"      // streams, pictures, app stores
	PurposeTelemetry    Purpose = "telemetry"    // usage data for the maker or a third party
	PurposeAds          Purpose = "ads"          // advertising and its measurement
	PurposeConnectivity Purpose = "connectivity" // "am I online?" checks
	PurposeInfra        Purpose = "infra"        // shared clouds and delivery networks, whose name says little
)

// Destination is what is known of a name. The zero value means: nothing.
type Destination struct {
	Organisation string
	Purpose      Purpose
	Country      string // ISO 3166-1 alpha-2 where the organisation is registered; "" when not known
	Essential    bool   // the device stops working without it
	Breaks       string // what stops working, in plain words
	Evidence     string // where this is documented
}
