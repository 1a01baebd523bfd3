package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

func (completionCmd) Help() string {
	return `Examples:
  netcurtain completion bash > /etc/bash_completion.d/netcurtain
  netcurtain completion zsh  > ~/.zfunc/_netcurtain
  netcurtain completion fish > ~/.config/fish/completions/netcurtain.fish`
}

// Run writes a script made from the command line's own model, so that it cannot
// fall behind.
func (c completionCmd) Run(io std, model *kong.Application) error {
	var b strings.Builder
	switch c.Shell {
	case "fish":
		for _, cmd := range model.Children {
			fmt.Fprintf(&b, "complete -c netcurtain -n __fish_use_subcommand -f -a %s -d %s\n", cmd.Name, quoteShell(cmd.Help))
			for _, f := range cmd.Flags {
				if f.Hidden || f.Name == "help" {
					continue
				}
				fmt.Fprintf(&b, "complete -c netcurtain -n '__fish_seen_subcommand_from %s' -l %s -d %s\n", cmd.Name, f.Name, quoteShell(f.Help))
			}
			for _, sub := range cmd.Children {
				fmt.Fprintf(&b, "complete -c netcurtain -n '__fish_seen_subcommand_from %s' -f -a %s -d %s\n", cmd.Name, sub.Name, quoteShell(sub.Help))
				for _, f := range sub.Flags {
					if f.Name != "help" && !f.Hidden {
						fmt.Fprintf(&b, "complete -c netcurtain -n '__fish_seen_subcommand_from %s' -l %s -d %s\n", sub.Name, f.Name, quoteShell(f.Help))
					}
				}
			}
		}
	default:
		if c.Shell == "zsh" {
			b.WriteString("#compdef netcurtain\nautoload -U +X bashcompinit && bashcompinit\n")
		}
		bash(&b, model)
	}
	_, err := fmt.Fprint(io.out, b.String())
	return err
}

func bash(b *strings.Builder, model *kong.Application) {
	var names []string
	for _, cmd := range model.Children {
		names = append(names, cmd.Name)
	}
	fmt.Fprintf(b, "_netcurtain() {\n\tlocal words\n\tcase \"${COMP_WORDS[1]}\" in\n")
	for _, cmd := range model.Children {
		var flags []string
		for _, f := range cmd.Flags {
			if !f.Hidden {
				flags = append(flags, "--"+f.Name)
			}
		}
		for _, p := range cmd.Positional {
			flags = append(flags, p.EnumSlice()...)
		}
		for _, sub := range cmd.Children {
			flags = append(flags, sub.Name)
			for _, f := range sub.Flags {
				if word := "--" + f.Name; !f.Hidden && !slices.Contains(flags, word) {
					flags = append(flags, word)
				}
			}
		}
		fmt.Fprintf(b, "\t%s) words=%s ;;\n", cmd.Name, quoteShell(strings.Join(flags, " ")))
	}
	fmt.Fprintf(b, "\tesac\n\t[ \"$COMP_CWORD\" -eq 1 ] && words=%s\n", quoteShell(strings.Join(names, " ")))
	b.WriteString("\tmapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"${COMP_WORDS[COMP_CWORD]}\")\n}\ncomplete -o default -F _netcurtain netcurtain\n")
}

func quoteShell(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
