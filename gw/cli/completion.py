"""`completion`: a shell script that defines `submilli` with completion, call SIDs included.

The script contains the full paths of this interpreter and this gateway.py, so it works from any folder. click answers the shell's
requests (see its `shell_completion`: words in COMP_WORDS, position in COMP_CWORD, one candidate per answer).
"""

from __future__ import annotations

import shlex
from typing import Final

import click

from gw.cli.context import EXIT_CODES_HERE, Settings, pass_settings

#: With this variable the program prints completions instead of running.
COMPLETE_VARIABLE: Final = "_SUBMILLI_COMPLETE"

_BASH: Final = """\
submilli() { @RUN@ "$@"; }
_submilli() {
    local answer
    COMPREPLY=()
    while IFS= read -r answer; do
        case "$answer" in
            file,*) compopt -o default ;;
            dir,*) compopt -o dirnames ;;
            plain,*) COMPREPLY+=("${answer#plain,}") ;;
        esac
    done < <(COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD="$COMP_CWORD" @VARIABLE@=bash_complete @RUN@)
}
complete -F _submilli submilli
"""

_ZSH: Final = """\
submilli() { @RUN@ "$@"; }
_submilli() {
    local kind value help
    local -a described bare
    COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT - 1)) @VARIABLE@=zsh_complete @RUN@ | {
        while IFS= read -r kind && IFS= read -r value && IFS= read -r help; do
            case "$kind" in
                file) _files ;;
                dir) _files -/ ;;
                plain) if [[ "$help" == _ ]]; then bare+=("$value"); else described+=("$value:$help"); fi ;;
            esac
        done
    }
    (( $#described )) && _describe -V submilli described
    (( $#bare )) && compadd -U -V submilli -a bare
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
compdef _submilli submilli
"""

_FISH: Final = """\
function submilli
    @RUN@ $argv
end
function __submilli_answers
    set -lx COMP_WORDS (commandline -cp)
    set -lx COMP_CWORD (commandline -t)
    set -lx @VARIABLE@ fish_complete
    for answer in (@RUN@)
        set -l parts (string split -m 1 , -- $answer)
        switch $parts[1]
            case file
                __fish_complete_path $COMP_CWORD
            case dir
                __fish_complete_directories $COMP_CWORD
            case plain
                echo $parts[2]
        end
    end
end
complete --no-files --command submilli --arguments '(__submilli_answers)'
"""

_SCRIPTS: Final = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


@click.command(short_help="Add the command `submilli` to your shell.", epilog=EXIT_CODES_HERE)
@click.argument("shell", type=click.Choice(list(_SCRIPTS)))
@pass_settings
def completion(settings: Settings, shell: str) -> None:
    """Print a script that adds the command `submilli` to your shell, with completion.

    Commands, options and the SIDs of recent calls complete.

    \b
    bash:  source <(.venv/bin/python gateway.py completion bash)
    zsh:   source <(.venv/bin/python gateway.py completion zsh)
    fish:  .venv/bin/python gateway.py completion fish | source

    To keep it, add the line to your shell's start file, with full paths.
    """
    run = shlex.join(Settings(None).command_line())
    click.echo(_SCRIPTS[shell].replace("@RUN@", run).replace("@VARIABLE@", COMPLETE_VARIABLE), nl=False)
