"""The language in which Business Central answers: its logic's messages, in English or Norwegian.

Codes are never translated, nor what a message quotes.
"""

import re

ENGLISH, NORWEGIAN = "en-US", "nb-NO"

# Whole sentences first, then what may stand within them.
_IN_NORWEGIAN = (
    (r"^There is nothing to post\.", "Det er ingenting å bokføre."),
    (r"^The analysis view could not be updated\.", "Analysevisningen kan ikke oppdateres."),
    (r"^A line is not valid", "En linje er ikke gyldig"),
    (r"^Document No\. must have a value in line (\d+)", r"Bilagsnr. må ha en verdi i linje \1"),
    (
        r"^Posting Date is not within your range of allowed posting dates in ",
        "Bokføringsdato er ikke innenfor perioden med tillatte bokføringsdatoer i ",
    ),
    (
        r"^Blocked must be equal to 'No'  in (.+)\. Current value is 'Yes'",
        r"Sperret må være lik 'Nei' i \1. Gjeldende verdi er 'Ja'",
    ),
    (
        r"^A dimension used in (.+) has caused an error\. .+ Dimension Code (\S+) for (.+)\.$",
        r"En dimensjon brukt i \1 er årsak til en feil. Velg verdikode for dimensjon \2 for \3.",
    ),
    (
        r"^You have one or more documents that must be posted before .* document no\. (\S+) .*$",
        r"Etter selskapets nummerserieoppsett må andre bilag bokføres før bilagsnr. \1.",
    ),
    (r" is out of balance by (\S+)\. Please check .*$", r" er ute av balanse med \1."),
    (
        r"^The field (.+) of table (.+) contains a value \((.*)\) that .* related table \((.+)\)",
        r"Feltet \1 i tabellen \2 inneholder verdien (\3), som ikke finnes i tabellen (\4)",
    ),
    (r"^The dimension set line already exists\. .*$", "Dimensjonssettlinjen finnes allerede."),
    (
        r'^The "valueCode" does not match to a Dimension Value',
        '"valueCode" samsvarer ikke med en dimensjonsverdi',
    ),
    (
        r"^The length of the string is (\d+), but .* equal to (\d+) characters\. Value: ",
        r"Strengen er på \1 tegn, men kan være på høyst \2. Verdi: ",
    ),
    (r" does not exist\.", " finnes ikke."),
    # What is named within: tables, fields, and how a row is pointed at.
    (r"Gen\. Journal Line", "Finanskladdelinje"),
    (r"Journal Template Name=", "Kladdemalnavn="),
    (r"Journal Batch Name=", "Bunkenavn="),
    (r"Line No\.=", "Linjenr.="),
    (r"G/L Account", "Finanskonto"),
    (r"Vendor", "Leverandør"),
    (r"Account No\.", "Kontonr."),
    (r"\bNo\.=", "Nr.="),
    (r" in (?=Finanskladdelinje)", " i "),
)


def said_in(language: str, message: str) -> str:
    """Return a message of Business Central's logic in a language; it is written in English."""
    if language == ENGLISH:
        return message
    for english, norwegian in _IN_NORWEGIAN:
        message = re.sub(english, norwegian, message)
    return message
