"""`mesh completion`: scripts that ask `mesh completion __complete`."""

from __future__ import annotations

from meshd.cli.client import LocalClient
from meshd.cli.command import Command, Part
from meshd.cli.completion import complete
from meshd.cli.flags import BOOL, Flag, Parsed
from meshd.cli.output import out, printable
from meshd.cli.state import no_arguments
from meshd.cli.tree import root_command

_BASH = r"""# bash completion for mesh: source <(mesh completion bash)
_mesh() {
    local line typed kept directive=0
    local -a words
    # Not COMP_WORDS: bash cuts words at "=" and ":".
    read -ra words <<< "${COMP_LINE:0:COMP_POINT}"
    [[ ${COMP_LINE:COMP_POINT-1:1} == " " ]] && words+=("")
    # And it replaces only what follows the last cut.
    typed=${words[${#words[@]}-1]}
    kept=${typed%"${typed##*[$COMP_WORDBREAKS]}"}
    COMPREPLY=()
    while IFS= read -r line; do
        if [[ $line =~ ^:[0-9]+$ ]]; then
            directive=${line#:}
        else
            line=${line%%$'\t'*}
            COMPREPLY+=("${line#"$kept"}")
        fi
    done < <("${words[0]}" completion __complete --flags=@FLAGS@ --descs=false -- "${words[@]:1}" 2>/dev/null)
    if (( ${#COMPREPLY[@]} == 0 && !(directive & 4) )); then
        compopt -o default 2>/dev/null
    fi
}
complete -F _mesh mesh"""

_ZSH = r"""#compdef mesh
# zsh completion for mesh: source <(mesh completion zsh)
_mesh() {
    local line word text directive=0
    local -a found
    while IFS= read -r line; do
        if [[ $line == :<-> ]]; then
            directive=${line#:}
        else
            word=${line%%$'\t'*}
            text=${line#*$'\t'}
            [[ $text == $line ]] && text=""
            found+=("${word//:/\\:}${text:+:$text}")
        fi
    done < <("${words[1]}" completion __complete --flags=@FLAGS@ --descs=@DESCS@ -- \
        "${(@)words[2,CURRENT]}" 2>/dev/null)
    if (( $#found )); then
        _describe mesh found
    elif (( !(directive & 4) )); then
        _files
    fi
}
if [[ $funcstack[1] == _mesh ]]; then
    _mesh "$@"
else
    compdef _mesh mesh
fi"""

_FISH = r"""# fish completion for mesh: mesh completion fish | source
function __mesh_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l found ($words[1] completion __complete --flags=@FLAGS@ --descs=@DESCS@ -- $words[2..-1] 2>/dev/null)
    set -l directive (string sub -s 2 -- $found[-1])
    set -e found[-1]
    if test (count $found) -gt 0
        printf '%s\n' $found
    else if test (math "bitand($directive, 4)") -eq 0
        __fish_complete_path (commandline -ct)
    end
end
complete -c mesh -f -a '(__mesh_complete)'"""

_POWERSHELL = r"""# PowerShell completion for mesh: mesh completion powershell | Out-String | Invoke-Expression
Register-ArgumentCompleter -Native -CommandName mesh -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $words = @()
    foreach ($element in $commandAst.CommandElements) {
        if ($element.Extent.StartOffset -lt $cursorPosition) { $words += $element.Extent.Text }
    }
    $rest = @($words | Select-Object -Skip 1)
    if ($wordToComplete -eq '') { $rest += '""' }
    $found = & $words[0] completion __complete --flags=@FLAGS@ --descs=@DESCS@ -- @rest 2>$null
    foreach ($line in $found) {
        if ($line -match '^:\d+$') { continue }
        $word, $text = $line -split "`t", 2
        if (-not $text) { $text = $word }
        [System.Management.Automation.CompletionResult]::new($word, $word, 'ParameterValue', $text)
    }
}"""

_FLAGS = Flag("flags", BOOL, True, "suggest flags too where no dash has been typed")
_DESCRIPTIONS = Flag("descs", BOOL, True, "describe what is suggested")


def _script(name: str, text: str) -> Command:
    def run(client: LocalClient, flags: Parsed) -> None:
        no_arguments(flags.args)
        values = {"@FLAGS@": flags.on("flags"), "@DESCS@": flags.on("descs")}
        script = text
        for mark, value in values.items():
            script = script.replace(mark, str(value).lower())
        out(script)

    return Command(
        name,
        usage=f"mesh completion {name} [--flags] [--descs]",
        short=f"Print the completion script for {name}",
        flags=[_FLAGS, _DESCRIPTIONS],
        run=run,
    )


def _complete(client: LocalClient, flags: Parsed) -> None:
    found, directive = complete(root_command(), flags.args, client.path, flags=flags.on("flags"))
    for word, text in found:
        out(printable(word) + (f"\t{printable(text)}" if text and flags.on("descs") else ""))
    out(f":{directive}")


def _help(client: LocalClient, flags: Parsed) -> None:
    out(COMMAND.help().rstrip("\n"))


BASH, ZSH, FISH = _script("bash", _BASH), _script("zsh", _ZSH), _script("fish", _FISH)
POWERSHELL = _script("powershell", _POWERSHELL)

COMPLETE = Command(
    "__complete",
    usage="mesh completion __complete -- <args to complete...>",
    short="Suggest what may follow",
    flags=[_FLAGS, _DESCRIPTIONS],
    run=_complete,
)

COMMAND = Command(
    "completion",
    usage="mesh completion <shell> [--flags] [--descs]",
    short="Print completion scripts for shells",
    long="""\
In the shell that is running:

  bash:  source <(mesh completion bash)
  zsh:   source <(mesh completion zsh)
  fish:  mesh completion fish | source
  powershell:  mesh completion powershell | Out-String | Invoke-Expression

For good:

  bash:  mesh completion bash > /etc/bash_completion.d/mesh
  zsh:   mesh completion zsh > "${fpath[1]}/_mesh"
  fish:  mesh completion fish > ~/.config/fish/completions/mesh.fish""",
    parts=[
        Part("bash", BASH.short, "completion_command", "BASH"),
        Part("zsh", ZSH.short, "completion_command", "ZSH"),
        Part("fish", FISH.short, "completion_command", "FISH"),
        Part("powershell", POWERSHELL.short, "completion_command", "POWERSHELL"),
        Part("__complete", COMPLETE.short, "completion_command", "COMPLETE", hidden=True),
    ],
    run=_help,
)
