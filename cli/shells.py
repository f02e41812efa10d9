"""Completion scripts for shells, made from the description of the command line.

They hold every command and option, so that completing starts no process.
"""

from collections.abc import Callable, Iterable, Sequence

from .reference import Described, Flag

_BASH = """\
# Completion of dstore for bash. Load it with: eval "$(dstore completion bash)"
_dstore() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} path="" skip="" words="" i
    for ((i = 1; i < COMP_CWORD; i++)); do
        if [[ -n $skip ]]; then skip=""; continue; fi
        case ${{COMP_WORDS[i]}} in
            {takes}) skip=1 ;;
            -*) ;;
            *) case "${{path:+$path }}${{COMP_WORDS[i]}}" in
                   {paths}) path="${{path:+$path }}${{COMP_WORDS[i]}}" ;;
               esac ;;
        esac
    done
    case "$path $prev" in
{choices}
    esac
    if [[ -z $words ]]; then
        case $prev in
            {takes}) COMPREPLY=($(compgen -f -- "$cur")); return ;;
        esac
        case $path in
{words}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
    if [[ ${{#COMPREPLY[@]}} -eq 0 ]]; then COMPREPLY=($(compgen -f -- "$cur")); fi
}}
complete -o filenames -F _dstore dstore
"""

_ZSH = """\
#compdef dstore
# Completion of dstore for zsh. Load it with: eval "$(dstore completion zsh)"
_dstore() {{
    local at="" skip="" word prev=${{words[CURRENT-1]}}
    local -a found
    for word in ${{words[2,CURRENT-1]}}; do
        if [[ -n $skip ]]; then skip=""; continue; fi
        case $word in
            {takes}) skip=1 ;;
            -*) ;;
            *) case "${{at:+$at }}$word" in
                   {paths}) at="${{at:+$at }}$word" ;;
               esac ;;
        esac
    done
    case "$at $prev" in
{choices}
    esac
    if (( ! ${{#found}} )); then
        case $prev in
            {takes}) _files; return ;;
        esac
        case $at in
{words}
        esac
        [[ $PREFIX == -* || -z $at || $at == (key|cache) ]] || {{ _files; return; }}
    fi
    _describe 'dstore' found
}}
compdef _dstore dstore
"""


def bash(commands: Sequence[Described]) -> str:
    """Return the script for bash."""
    choices = [
        f"        {_quote(' '.join((*words, name)))}) words={_quote(' '.join(flag.choices))} ;;"
        for words, flag in _choosing(commands)
        for name in flag.names
    ]
    words = [
        f"            {_quote(' '.join(one.words))}) words={_quote(' '.join(_words(one, commands)))} ;;"
        for one in commands
    ]
    return _fill(_BASH, commands, choices, words)


def zsh(commands: Sequence[Described]) -> str:
    """Return the script for zsh."""
    choices = [
        f"        {_quote(' '.join((*words, name)))}) found=({' '.join(map(_quote, flag.choices))}) ;;"
        for words, flag in _choosing(commands)
        for name in flag.names
    ]
    words = [
        f"            {_quote(' '.join(one.words))}) found=({' '.join(_explained(one, commands))}) ;;"
        for one in commands
    ]
    return _fill(_ZSH, commands, choices, words)


def fish(commands: Sequence[Described]) -> str:
    """Return the script for fish."""
    lines = ["# Completion of dstore for fish. Save it as ~/.config/fish/completions/dstore.fish"]
    for one in commands:
        if not one.words:
            when = ""
        elif len(one.words) == 1:
            when = f" -n {_quote(f'__fish_seen_subcommand_from {one.words[0]}')}"
        else:
            seen = " ".join(f"; and __fish_seen_subcommand_from {word}" for word in one.words)
            when = f" -n {_quote(seen.removeprefix('; and '))}"
        for name, text in _below(one, commands):
            first = " -n __fish_use_subcommand" if not one.words else when
            lines.append(f"complete -c dstore{first} -f -a {name} -d {_quote(text)}")
        for flag in one.flags:
            spelled = "".join(
                f" -l {name[2:]}" if name.startswith("--") else f" -s {name[1:]}" for name in flag.names
            )
            value = f" -x -a {_quote(' '.join(flag.choices))}" if flag.choices else " -r" * bool(flag.metavar)
            lines.append(f"complete -c dstore{when}{spelled}{value} -d {_quote(flag.help)}")
    return "\n".join(lines) + "\n"


SCRIPTS: dict[str, Callable[[Sequence[Described]], str]] = {"bash": bash, "zsh": zsh, "fish": fish}


def _fill(template: str, commands: Sequence[Described], choices: list[str], words: list[str]) -> str:
    takes = sorted({name for one in commands for flag in one.flags if flag.metavar for name in flag.names})
    paths = [_quote(" ".join(one.words)) for one in commands if one.words]
    return template.format(
        takes="|".join(takes), paths="|".join(paths), choices="\n".join(choices), words="\n".join(words)
    )


def _choosing(commands: Iterable[Described]) -> Iterable[tuple[tuple[str, ...], Flag]]:
    return [(one.words, flag) for one in commands for flag in one.flags if flag.choices]


def _below(one: Described, commands: Iterable[Described]) -> list[tuple[str, str]]:
    """Return the names of the commands right below, each with the first line of its help."""
    return [
        (other.words[-1], other.help.splitlines()[0] if other.help else "")
        for other in commands
        if other.words and other.words[:-1] == one.words
    ]


def _words(one: Described, commands: Iterable[Described]) -> list[str]:
    return [name for name, _ in _below(one, commands)] + [name for flag in one.flags for name in flag.names]


def _explained(one: Described, commands: Iterable[Described]) -> list[str]:
    pairs = _below(one, commands) + [(name, flag.help) for flag in one.flags for name in flag.names]
    return [_quote(f"{name}:{text}") for name, text in pairs]


def _quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
