// Package enforce makes the kernel obey: our nftables tables, policy route,
// conntrack deletes and sysctls, each put back when we stop.
//
// # Tables
//
// Table inet netcurtain goes when we stop. Who its rules apply to is in sets, so
// that a device which changes its mode changes an element and no rule; where rules
// must change they are replaced in one transaction, which keeps the live sets.
//
//	chain            hook, priority            what it does
//	lookups          prerouting, raw           look-ups to the router: not tracked; others: tracked in zone 4743
//	other_resolvers  prerouting nat, dstnat-1  zone 4743: redirected to the router's own port 53
//	to_us            input, 200                port 53 becomes ours, behind every other firewall
//	from_us          output, raw               our port becomes 53, before connection tracking and every firewall
//	handover         prerouting, mangle        TCP 80, 443 and further ports of guarded devices by TPROXY, new connections only, once a device was guarded;
//	                                           without tproxy at raw, and chain handover_redirect (nat, dstnat-1) translates
//	forward          forward, filter-1         refuses blocked addresses; QUIC, DoT, DoQ and known DoH addresses of guarded devices; copies first packets
//	listeners        input, filter-1           refuses whoever knocks on our ports directly, but the LAN at the explicit proxy;
//	                                           copies what may ask the router to open a port: UDP 5351, TCP from 1024 on
//
// Table inet netcurtain_cut refuses devices without internet everything that is
// routed out of the house. It is also in a file that the system loads at boot;
// only the household and an uninstall remove it.
//
//	chain    hook, priority     what it does
//	forward  forward, filter-2  refuses what cut devices send out of the LAN interfaces
//
// Table netdev netcurtain stands while there is a flow table (software offloading),
// whose connections pass none of the above after their handshake.
//
//	chain  hook, priority  what it does
//	first  ingress, -10    copies the first TCP data that devices send, ahead of the flow table
//
// # Sets
//
//	set                          written by  holds
//	lan                          Set         interfaces of the house
//	web                          Set         TCP ports that go to the proxy
//	unfiltered, guarded, cut     Set         devices by MAC
//	proxied                      Set         who is guarded, or was since we started
//	exempt4, exempt6             Set         resolvers of the house's own: never redirected
//	doors4, doors6               Set         public resolvers: refused to guarded devices on port 443
//	ports                        Set         our listeners
//	was (map)                    Set         what Release puts back: routing table, former sysctls
//	alive                        Alive       ports taken over: 53 and 853, 80, 443 and further ones; 5 s each
//	aside                        Alive       interface . port where a firewall of somebody else drops what we take; an hour each
//	blocked4, blocked6           Block, Unblock  device . address, each with its end, which the daemon renews
//	ended4, ended6               End         single connections, by protocol and both ends; five minutes each
//	carried4, carried6           the kernel  without tproxy: connections that the proxy carries, by both ends
//	unseen4, unseen6             the kernel  addresses of unfiltered devices, for a minute
//	taken, arrived               the kernel  interface . port: look-ups and connections taken, and those of them that arrived
//
// # Marks
//
// Both are single bits, used with themselves as mask. Deliver (0x01000000) is set
// by TPROXY; rule 743 sends it to table 4743, where everything is local. Both stand
// once a device was guarded: a rule of its own makes every packet's way dearer. Ours
// (0x02000000) is on every socket that the daemon opens; what carries it is never
// taken, handed over or copied.
//
// # Falling open
//
// No gate needs the daemon to open it. A look-up is ours while its port is in
// alive, which forgets it after 5 s. Nothing that the kernel remembers outlives
// that: look-ups to the router are not tracked at all, and redirected ones are
// tracked in a zone of their own, to which a packet belongs only while the gate is
// closed. So a client that asks every second from one source port is answered by
// the plain router, or by the resolver that it chose, with the first question
// after the gate opened, over UDP and TCP, and is ours again with the first one
// after it closed; no conntrack entry need be deleted for either.
//
// A TPROXY without a listener does not match, and the packet is routed. Without
// tproxy a connection's first packet puts it into a set while the gate is closed,
// or takes it out; what is in the set is tracked in the zone, on the way out
// alone, and translated there. So a new connection from the same port, which the
// kernel's memory of a translation would keep with us, is free with its first
// packet after the gate opened.
//
// # Beside other firewalls
//
// What we bring to ourselves passes the input chains of every other table, where
// a guest zone may refuse it, and no chain of ours can accept what another table
// refuses. So those tables get rules of ours, each with a comment that begins
// "netcurtain: " (passages.nft.tmpl): handed-over connections are accepted first,
// look-ups and the explicit proxy's port in place of the last refusal, from our LAN
// interfaces only, and not from those that the firewall bars from the internet. They
// come back when that firewall was loaded anew (Watch tells) and go with Release.
// Where a firewall still drops what we take from an interface, the counts differ,
// and Alive leaves that interface's traffic alone for an hour: ErrBlocked.
//
// # What other firewalls refuse
//
// What the proxy carries leaves as the router's own and passes no forward chain. So
// the rules of other tables' forward chains stand in our table a second time, in
// their own words, reduced to what they say of a new TCP connection from the LAN
// (firewall.go): it is handed over when all accept. One that is refused there is left
// alone, and the firewall refuses it itself; so reading a rule as stricter than it is
// costs the proxy's view of a connection, and never breaks one. Rules that cannot be
// read count as that. They are read again when another program changes the kernel's
// rules. Rules about sets, which a table shares with nobody, are left out: the proxy
// asks Forwards, which has the kernel look into them. It asks the same of connections that
// the explicit proxy makes. What runs goes on for as long as the same rules let an
// established connection go on (GoesOn), which for most of them is to its end.
//
// # Between the parts of the house
//
// What leaves through the proxy passes no forward chain. So no connection that
// leads to a LAN interface is handed over, whatever its address: whether a guest
// may reach it is for the firewall to say. What a guest asks of a resolver in the
// LAN we answer ourselves, as for every other resolver.
package enforce
